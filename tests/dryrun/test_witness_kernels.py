"""The stand-in kernels compute what the optimizers they stand in for compute."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow  # importing torch takes seconds

LR, BETAS, EPS, DECAY = 0.01, (0.9, 0.95), 1e-6, 0.1
SIZE = 70_001  # more than one chunk


def values():
    torch.manual_seed(0)
    return torch.randn(SIZE), [torch.randn(SIZE) for _ in range(3)]


def reference(make):
    start, grads = values()
    param = torch.nn.Parameter(start.clone())
    optimizer = make([param])
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param.detach()


@pytest.mark.parametrize("adamw", [True, False])
def test_cpu_adam_is_adam(adamw):
    from zero_sizer.dryrun.launched.kernels import _CpuAdam

    start, grads = values()
    param, exp_avg, exp_avg_sq = start.clone(), torch.zeros(SIZE), torch.zeros(SIZE)
    kernel = _CpuAdam()
    kernel.create_adam(0, LR, *BETAS, EPS, DECAY, adamw, False)
    for step, grad in enumerate(grads, 1):
        kernel.adam_update(0, step, LR, *BETAS, EPS, DECAY, True, param, grad, exp_avg, exp_avg_sq)
    cls = torch.optim.AdamW if adamw else torch.optim.Adam
    expected = reference(lambda p: cls(p, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY))
    torch.testing.assert_close(param, expected)


def test_multi_tensor_adam_updates_every_tensor_of_its_lists():
    from zero_sizer.dryrun.launched.kernels import multi_tensor_adam

    start, grads = values()
    params = [start[:40_000].clone(), start[40_000:].clone()]
    states = [[torch.zeros_like(p) for p in params] for _ in range(2)]
    for step, grad in enumerate(grads, 1):
        split = [grad[:40_000], grad[40_000:]]
        multi_tensor_adam(
            65536, None, [split, params, *states], LR, *BETAS, EPS, step, 1, True, DECAY
        )
    expected = reference(
        lambda p: torch.optim.AdamW(p, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)
    )
    torch.testing.assert_close(torch.cat(params), expected)


def test_cpu_adagrad_is_adagrad():
    from zero_sizer.dryrun.launched.kernels import _CpuAdagrad

    start, grads = values()
    param, square = start.clone(), torch.zeros(SIZE)
    for step, grad in enumerate(grads, 1):
        _CpuAdagrad().adagrad_update(0, step, LR, EPS, DECAY, param, grad, square)
    expected = reference(lambda p: torch.optim.Adagrad(p, lr=LR, eps=EPS, weight_decay=DECAY))
    torch.testing.assert_close(param, expected)


def test_a_watched_kernel_allocates_nothing():
    from zero_sizer.dryrun.launched.kernels import _CpuAdam
    from zero_sizer.dryrun.launched.watch import StorageWatch

    param, grad, exp_avg, exp_avg_sq = (torch.ones(SIZE) for _ in range(4))
    kernel = _CpuAdam()
    kernel.create_adam(0, LR, *BETAS, EPS, DECAY, True, False)
    with StorageWatch() as watch:
        watch.begin("step")
        kernel.adam_update(0, 1, LR, *BETAS, EPS, DECAY, True, param, grad, exp_avg, exp_avg_sq)
    assert watch.peak(set()) == {"gpu": 0, "host": 0}
