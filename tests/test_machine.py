from pathlib import Path

import pytest

from dexml import machine


@pytest.mark.parametrize(
    ("vendor", "flags", "slow"),
    [
        ("GenuineIntel", "avx2 avx512f", False),
        ("AuthenticAMD", "avx2 avx512f avx512_bf16", True),
        ("AuthenticAMD", "avx2", False),
    ],
)
def test_mkl_is_slow_on_avx512_of_another_maker(
    monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str, slow: bool
) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self: f"vendor_id\t: {vendor}\nflags\t\t: {flags}\n")
    assert machine.mkl_is_slow.__wrapped__() is slow


def test_where_the_maker_is_not_told_mkl_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert machine.mkl_is_slow.__wrapped__() is False
