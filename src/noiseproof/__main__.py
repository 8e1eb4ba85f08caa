from noiseproof.cli import main

main()
