"""Float64 NumPy twins of the domain losses, written from their formulas, not from their code.

Each returns the values and the gradient of the sum of the values with respect to `y_pred`.
"""
