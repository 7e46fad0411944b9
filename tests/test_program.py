"""Programs of compiled calls, and gradients by walking back along a tape."""

import threading

import pytest
import torch

import fused


def layers():
    """Return a dense layer's input and weights, and another layer's."""
    random = torch.Generator().manual_seed(0)
    return [
        torch.randn(*shape, generator=random).requires_grad_()
        for shape in ((2, 8, 64), (2, 8, 8), (8,), (2, 12, 8), (12,))
    ]


def chain(x, weight, bias, other, other_bias):
    dense = fused.run(fused.Dense)
    y = dense(dense(x, weight, bias), weight, bias)
    return fused.run(fused.Join)(torch.float32, dense(y, other, other_bias), y)


def test_a_program_does_again_what_was_recorded_on_what_is_there_then():
    x, *weights = layers()
    made = []
    program = fused.record(lambda: made.append(chain(x, *weights)))
    assert program.calls == 5
    for _ in range(2):
        program.replay()
        with torch.no_grad():
            assert torch.equal(made[0], chain(x, *weights))
            x.copy_(torch.randn_like(x))
            weights[0].mul_(0.9)


def test_programs_side_by_side_share_no_work_memory():
    inputs = [[y.detach() + i for y in layers()] for i in range(2)]
    made = {}
    programs = [fused.record(lambda i=i: made.update({i: chain(*inputs[i])})) for i in range(2)]  # in one thread
    with torch.no_grad():
        wanted = [chain(*each) for each in inputs]
    wrong = []

    def repeat(i):
        for _ in range(2000):
            programs[i].replay()
            if not torch.equal(made[i], wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("compute", [lambda x: x + 1.0, lambda x: x.t().contiguous(), lambda x: x.float().double()])
def test_what_pytorch_computes_is_not_recorded_and_refused(compute):
    x = torch.ones(3, 2)
    with pytest.raises(RuntimeError, match="a program is recorded of compiled calls alone: expected views, got aten"):
        fused.record(lambda: compute(x))
    y = torch.zeros(2)
    fused.assign(y, torch.ones(2))  # and nothing is recorded any more
    assert y.tolist() == [1.0, 1.0]


def test_too_many_arguments_are_refused():
    with pytest.raises(ValueError, match="expected at most 48 arguments, got 49"):
        fused.Program().add(print, [0] * 49, ())


def test_what_is_not_side_by_side_is_not_assigned_in_a_program():
    with pytest.raises(ValueError, match="expected contiguous tensors of one kind"):
        fused.record(lambda: fused.assign(torch.zeros(2, 2), torch.zeros(2, 4)[:, ::2]))


def test_a_tape_finds_autograds_gradients_of_what_is_read_twice():
    x, *weights = layers()
    direction = torch.randn(2, 20, 64)
    loss = (chain(x, *weights) * direction).sum()
    wanted = torch.autograd.grad(loss, (x, *weights))
    with torch.no_grad(), fused.Tape() as tape:
        y = chain(x, *weights)
    found = tape.gradients([(y, direction)])
    for leaf, gradient in zip((x, *weights), wanted, strict=True):
        torch.testing.assert_close(found[leaf.data_ptr()], gradient, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # nothing is noted any more
        y = chain(x, *weights)
    assert tape.gradients([(y, direction)]).keys() == {y.data_ptr()}


def test_gradients_in_bfloat16_add_up():
    _, weight, bias, *_ = layers()
    x = torch.randn(2, 8, 64, dtype=torch.bfloat16).requires_grad_()

    def compute():
        dense = fused.run(fused.Dense)
        return fused.run(fused.Join)(torch.bfloat16, dense(x, weight, bias), dense(x, weight, bias))

    direction = torch.randn(2, 16, 64).bfloat16()
    (wanted,) = torch.autograd.grad((compute() * direction).sum(), x)
    with torch.no_grad(), fused.Tape() as tape:
        y = compute()
    found = tape.gradients([(y, direction)])[x.data_ptr()]
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)


def test_a_gather_copies_views_and_what_lies_a_step_further_on():
    x = torch.randn(3, 5, 4, 24)
    y = torch.arange(7 * 24, dtype=torch.bfloat16).view(7, 24)
    views = [lambda i: x[:, 1:4, ::2, i : i + 8], lambda i: y[:, i : i + 8], lambda i: x[0]]
    copies = [torch.zeros(view(0).shape, dtype=view(0).dtype) for view in views]
    gather = fused.Gather(3)
    gather.between([view(2) for view in views], copies, [4, 2, 0])
    program = fused.record(gather)
    for step, copy_now in ((0, gather), (5, gather), (-2, program.replay)):
        gather.step(step)
        copy_now()
        for copy, view in zip(copies, views, strict=True):
            assert torch.equal(copy, view(2 + step))
    out = torch.zeros(4, 24)
    gather = fused.Gather(1)
    gather.between([x[0, 0, 0]], [out[0]], [4 * 24], [4 * 24])
    for step in (0, 1, 3):
        gather.step(step)
        gather()
    assert torch.equal(out[[0, 1, 3]], x[0, 0, [0, 1, 3]]) and not out[2].any()
    for wrong in (torch.zeros(7, 9), torch.zeros(7, 8), torch.zeros(8, 7, dtype=torch.bfloat16).t()):
        with pytest.raises(ValueError, match="expected a contiguous tensor like"):
            gather.between([y[:, :8]], [wrong])
    many = torch.zeros(3, 3, 3, 3, 3)[::2, ::2, ::2, ::2, ::2]
    with pytest.raises(ValueError, match="expected at most 3 axes apart"):
        gather.between([many], [torch.zeros(many.shape)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_layers_do_what_pytorch_does(dtype):
    """Masked, Resized to fewer and to more, and what is assigned, recorded."""
    x = torch.randn(2, 8, 32, dtype=dtype).requires_grad_()
    keep = (torch.rand(32) < 0.5).float()

    def plain():
        return torch.cat(((x * keep).to(dtype).flatten(), x.flatten()[:64], x.flatten(), x.new_zeros(32)))

    def layered():
        resized = fused.run(fused.Resized)
        return fused.run(fused.Masked)(x, keep), resized(x, (2, 32)), resized(x, (17, 32))

    assert torch.equal(torch.cat([y.flatten() for y in layered()]), plain())
    out = torch.full((17, 32), -1.0, dtype=dtype)
    program = fused.record(lambda: fused.assign(out, layered()[2]))
    with torch.no_grad():
        x.mul_(2.0)
    program.replay()
    assert torch.equal(out, torch.cat((x.detach().flatten(), x.new_zeros(32))).view(17, 32))
    gradients = []
    for y in (plain(), torch.cat([y.flatten() for y in layered()])):
        direction = torch.arange(len(y), dtype=torch.float32).sin().to(dtype)
        gradients += torch.autograd.grad((y * direction).sum(), x)
    torch.testing.assert_close(*gradients, rtol=2e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-2)


def test_what_is_shown_is_drawn():
    x = torch.tensor([0.0, 0.3, 0.5, 0.9])
    assert fused.at_least(x, 0.5).tolist() == [0.0, 0.0, 1.0, 1.0]
