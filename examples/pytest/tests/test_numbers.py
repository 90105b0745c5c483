import pytest


@pytest.mark.parametrize("number, square", [(0, 0), (3, 9), (-4, 16)])
def test_square(number, square):
    assert number**2 == square


def test_division_by_zero_is_an_error():
    with pytest.raises(ZeroDivisionError):
        1 / 0
