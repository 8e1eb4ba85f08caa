"""Layers without recurrence in Triton. x is [T, n]; a program takes a block of neurons through all steps, its state in registers.

Forward reads x and writes the spikes. Backward needs the potentials again. It goes back in segments of SEGMENT steps, whose
potentials fit into registers: a first sweep leaves the state at the beginning of every segment but the last, then segment by
segment, from the last, x is read again and the potentials are computed again. So up to SEGMENT steps cost three passes over
memory, and longer sequences read x at most once more; nowhere is there a potential for every step in memory.
"""

# pyright: reportInvalidTypeForm=false, reportAttributeAccessIssue=false
# ruff: noqa: RUF005, SIM102, SIM108
# (Triton takes no * in a tuple, and an `if` that is decided when it compiles must stand alone)

from __future__ import annotations

from noiseproof.neurons.kernels._triton_step import advance, kernel, retreat, tl


@kernel
def places(n, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """The neurons of this program, and which of them there are. 32 bits where they suffice: a division of 64 is dear."""
    block = tl.program_id(0)
    if WIDE:
        block = block.to(tl.int64)
    i = block * BLOCK + tl.arange(0, BLOCK)
    return i, i < n


@kernel
def look(run, t, i, mask, STATE: tl.constexpr):
    """A parameter at step t. run: data, period (None: one number for all), inner, step (None: the same at all steps); None if not there."""
    if run is None:
        found = None
    else:
        data = run[0]
        if run[3] is not None:
            data = data + t * tl.cast(run[3], tl.int64)
        if run[1] is None:
            found = tl.load(data).to(STATE)
        else:
            found = tl.load(data + (i // run[2]) % run[1], mask=mask, other=1.0).to(STATE)
    return found


@kernel
def at_step(run, fixed, t, i, mask, STATE: tl.constexpr):
    """A parameter at step t, where `fixed` is what it was at step 0: read again only where it changes."""
    found = fixed
    if run is not None:
        if run[3] is not None:
            found = look(run, t, i, mask, STATE)
    return found


@kernel
def fetch(data, i, mask, STATE: tl.constexpr, BLOCK: tl.constexpr):
    """A state; zero where it is not given."""
    if data is None:
        found = tl.zeros([BLOCK], STATE)
    else:
        found = tl.load(data + i, mask=mask, other=0.0).to(STATE)
    return found


@kernel
def collect(grad, run, t, n, i, mask, value):
    """Write a gradient: for one number the sum of this program, in [T or 1, programs], else a number a neuron, in [T or 1, n]."""
    if run[1] is None:
        at = t * tl.cast(tl.num_programs(0), tl.int64) + tl.program_id(0)
        tl.store(grad + at, tl.sum(value, 0))
    else:
        tl.store(grad + t * tl.cast(n, tl.int64) + i, value, mask=mask)


@kernel
def forward_kernel(
    x, v0, s0, b0, r0, leak, gain, theta, beta, rho, spikes, v_out, b_out, r_out, T, n,
    RESET: tl.constexpr, REFRACTORY: tl.constexpr, STATE: tl.constexpr,
    CONSTANT: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    i, mask = places(n, BLOCK, WIDE)
    wide = tl.cast(n, tl.int64)
    v = fetch(v0, i, mask, STATE, BLOCK)
    s = fetch(s0, i, mask, STATE, BLOCK)
    b = fetch(b0, i, mask, STATE, BLOCK)
    r = fetch(r0, i, mask, STATE, BLOCK)
    leak_first, gain_first = look(leak, 0, i, mask, STATE), look(gain, 0, i, mask, STATE)
    theta_now = look(theta, 0, i, mask, STATE)
    beta_now = look(beta, 0, i, mask, STATE)
    rho_now = look(rho, 0, i, mask, STATE)
    ahead = tl.load(x + i, mask=mask, other=0.0)
    for t in range(0, T):
        current = ahead.to(STATE)
        if not CONSTANT:  # one step ahead, so that memory is busy while this step is computed
            ahead = tl.load(x + (t + 1) * wide + i, mask=mask & (t + 1 < T), other=0.0)
        leak_now = at_step(leak, leak_first, t, i, mask, STATE)
        gain_now = at_step(gain, gain_first, t, i, mask, STATE)
        _, _, _, v, s, b, r = advance(current, v, s, b, r, leak_now, gain_now, theta_now, beta_now, rho_now, RESET, REFRACTORY)
        tl.store(spikes + t * wide + i, s, mask=mask)
    tl.store(v_out + i, v, mask=mask)
    if b_out is not None:
        tl.store(b_out + i, b, mask=mask)
    if r_out is not None:
        tl.store(r_out + i, r, mask=mask)


@kernel
def backward_kernel(
    x, v0, s0, b0, r0, leak, gain, theta, beta, rho, gs, gv, gb, gx, gv0, gs0, gb0,
    to_leak, to_gain, to_theta, to_beta, to_rho, tape_v, tape_s, tape_b, tape_r, T, n, p0: tl.float64, p1: tl.float64,
    RESET: tl.constexpr, REFRACTORY: tl.constexpr, STATE: tl.constexpr, THROUGH: tl.constexpr, SURROGATE: tl.constexpr,
    CONSTANT: tl.constexpr, SEGMENT: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradients and tapes that are None are not written. The tapes are [segments − 1, n]: the state before a segment."""
    i, mask = places(n, BLOCK, WIDE)
    wide = tl.cast(n, tl.int64)
    v = fetch(v0, i, mask, STATE, BLOCK)
    s = fetch(s0, i, mask, STATE, BLOCK)
    b = fetch(b0, i, mask, STATE, BLOCK)
    r = fetch(r0, i, mask, STATE, BLOCK)
    leak_first, gain_first = look(leak, 0, i, mask, STATE), look(gain, 0, i, mask, STATE)
    theta_now = look(theta, 0, i, mask, STATE)
    beta_now = look(beta, 0, i, mask, STATE)
    rho_now = look(rho, 0, i, mask, STATE)
    segments = (T + SEGMENT - 1) // SEGMENT

    if tape_v is not None:
        for segment in range(0, segments - 1):
            tl.store(tape_v + segment * wide + i, v, mask=mask)
            if tape_s is not None:
                tl.store(tape_s + segment * wide + i, s, mask=mask)
            if tape_b is not None:
                tl.store(tape_b + segment * wide + i, b, mask=mask)
            if tape_r is not None:
                tl.store(tape_r + segment * wide + i, r, mask=mask)
            currents = ()
            for k in tl.static_range(SEGMENT):
                at = 0 if CONSTANT else segment * SEGMENT + k
                currents = currents + (tl.load(x + at * wide + i, mask=mask, other=0.0),)
            for k in tl.static_range(SEGMENT):
                t = segment * SEGMENT + k
                leak_now = at_step(leak, leak_first, t, i, mask, STATE)
                gain_now = at_step(gain, gain_first, t, i, mask, STATE)
                current = currents[k].to(STATE)
                _, _, _, v, s, b, r = advance(current, v, s, b, r, leak_now, gain_now, theta_now, beta_now, rho_now, RESET, REFRACTORY)

    zero = tl.zeros([BLOCK], STATE)
    per = 1 / (theta_now if beta_now is None else theta_now + beta_now * b)
    settings0, settings1 = tl.cast(p0, STATE), tl.cast(p1, STATE)
    carry_v, carry_s = fetch(gv, i, mask, STATE, BLOCK), zero
    carry_b, carry_B = fetch(gb, i, mask, STATE, BLOCK), zero
    sum_x, sum_leak, sum_gain, sum_theta, sum_beta, sum_rho = zero, zero, zero, zero, zero, zero
    for back in range(0, segments):
        start = (segments - 1 - back) * SEGMENT
        currents, to_s = (), ()
        for k in tl.static_range(SEGMENT):  # first all that comes from memory: it arrives together
            inside = mask & (start + k < T)
            at = 0 if CONSTANT else start + k
            currents = currents + (tl.load(x + at * wide + i, mask=inside, other=0.0),)
            to_s = to_s + (tl.load(gs + (start + k) * wide + i, mask=inside, other=0.0),)
        hs, Bs, alives = (), (theta_now if beta_now is None else theta_now + beta_now * b,), ()
        vs, ss, bs, dead = (v,), (s,), (b,), r  # one more than there are steps: the state before the segment
        for k in tl.static_range(SEGMENT):  # steps after the last do no harm, nobody looks them up
            t = tl.minimum(start + k, T - 1)
            leak_now = at_step(leak, leak_first, t, i, mask, STATE)
            gain_now = at_step(gain, gain_first, t, i, mask, STATE)
            h, B, alive, new_v, new_s, new_b, dead = advance(
                currents[k].to(STATE), vs[k], ss[k], bs[k], dead, leak_now, gain_now, theta_now, beta_now, rho_now, RESET, REFRACTORY
            )
            hs, Bs, alives, vs, ss, bs = hs + (h,), Bs + (B,), alives + (alive,), vs + (new_v,), ss + (new_s,), bs + (new_b,)
        for later in tl.static_range(SEGMENT):
            if start + (SEGMENT - 1 - later) < T:
                t = start + (SEGMENT - 1 - later)
                leak_now = at_step(leak, leak_first, t, i, mask, STATE)
                gain_now = at_step(gain, gain_first, t, i, mask, STATE)
                if beta is not None:
                    per = 1 / Bs[SEGMENT - later]
                to_h, to_B, to_b, carry_v, carry_s, carry_b, carry_B = retreat(
                    to_s[SEGMENT - 1 - later].to(STATE), hs[SEGMENT - 1 - later], Bs[SEGMENT - later], per, alives[SEGMENT - 1 - later],
                    ss[SEGMENT - 1 - later], bs[SEGMENT - 1 - later], Bs[SEGMENT - 1 - later],
                    carry_v, carry_s, carry_b, carry_B, leak_now, beta_now, rho_now, settings0, settings1,
                    RESET, REFRACTORY, THROUGH, SURROGATE,
                )  # fmt: skip
                if to_theta is not None:
                    sum_theta += to_B
                if to_beta is not None:
                    sum_beta += to_B * bs[SEGMENT - later]
                if to_rho is not None:
                    sum_rho += to_b * (bs[SEGMENT - 1 - later] - ss[SEGMENT - 1 - later])
                if to_leak is not None:
                    if leak[3] is not None:
                        collect(to_leak, leak, t, n, i, mask, to_h * vs[SEGMENT - 1 - later])
                    else:
                        sum_leak += to_h * vs[SEGMENT - 1 - later]
                if to_gain is not None:
                    if gain[3] is not None:
                        collect(to_gain, gain, t, n, i, mask, to_h * currents[SEGMENT - 1 - later].to(STATE))
                    else:
                        sum_gain += to_h * currents[SEGMENT - 1 - later].to(STATE)
                to_current = to_h if gain_now is None else gain_now * to_h
                if CONSTANT:
                    sum_x += to_current
                else:
                    tl.store(gx + t * wide + i, to_current, mask=mask)
        if tape_v is not None:
            if start > 0:
                before = start // SEGMENT - 1
                v = tl.load(tape_v + before * wide + i, mask=mask, other=0.0)
                if tape_s is not None:
                    s = tl.load(tape_s + before * wide + i, mask=mask, other=0.0)
                if tape_b is not None:
                    b = tl.load(tape_b + before * wide + i, mask=mask, other=0.0)
                if tape_r is not None:
                    r = tl.load(tape_r + before * wide + i, mask=mask, other=0.0)

    if RESET == 2:  # the threshold that belongs to the initial state
        sum_theta += carry_B
        if beta is not None:
            sum_beta += carry_B * b
            carry_b += beta_now * carry_B
    if CONSTANT:
        tl.store(gx + i, sum_x, mask=mask)
    if gv0 is not None:
        tl.store(gv0 + i, carry_v, mask=mask)
    if gs0 is not None:
        tl.store(gs0 + i, carry_s, mask=mask)
    if gb0 is not None:
        tl.store(gb0 + i, carry_b, mask=mask)
    if to_leak is not None:
        if leak[3] is None:
            collect(to_leak, leak, 0, n, i, mask, sum_leak)
    if to_gain is not None:
        if gain[3] is None:
            collect(to_gain, gain, 0, n, i, mask, sum_gain)
    if to_theta is not None:
        collect(to_theta, theta, 0, n, i, mask, sum_theta)
    if to_beta is not None:
        collect(to_beta, beta, 0, n, i, mask, sum_beta)
    if to_rho is not None:
        collect(to_rho, rho, 0, n, i, mask, sum_rho)
