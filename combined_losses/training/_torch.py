"""What only torch has: gradients have to be switched on where Keras has switched them off."""

import torch


def gradient(function):
    """The gradient of a function of one tensor to a scalar, itself differentiable."""

    def gradient_at(x):
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            value = function(x)
            if not value.requires_grad:
                return torch.zeros_like(x)
            return torch.autograd.grad(value, x, create_graph=True, materialize_grads=True)[0]

    return gradient_at
