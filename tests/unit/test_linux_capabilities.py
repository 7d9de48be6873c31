import pytest

from sandbox.errors import InvalidInput
from sandbox.linux import capabilities as caps

EVERY = (1 << (caps.last_cap() + 1)) - 1


def test_names_and_masks_are_inverse() -> None:
    for number, name in enumerate(caps.NAMES):
        assert caps.mask_of([name]) == 1 << number
        assert caps.names_of(1 << number) == (name,)
    assert caps.mask_of(["net_admin", "CAP_NET_ADMIN", "Net_Admin"]) == 1 << 12


def test_kernel_agrees_on_the_last_number() -> None:
    assert caps.last_cap() + 1 >= 38
    assert caps.names_of(1 << 60) == ("CAP_60",)


def test_default_is_the_fourteen_of_containerd() -> None:
    sets = caps.capability_sets(limit=EVERY)
    assert caps.names_of(sets.bounding) == tuple(sorted(caps.DEFAULT_CAPABILITIES, key=caps.NUMBERS.__getitem__))
    assert len(caps.DEFAULT_CAPABILITIES) == 14
    assert sets.bounding == sets.permitted == sets.effective == 0xA80425FB  # what docker prints as CapEff
    assert (sets.inheritable, sets.ambient, sets.warnings) == (0, 0, ())


def test_add_and_drop() -> None:
    assert caps.capability_sets(drop=["ALL"], limit=EVERY).bounding == 0
    assert caps.capability_sets(add=["ALL"], limit=EVERY).bounding == EVERY
    assert caps.capability_sets(add=["ALL"], drop=["ALL"], limit=EVERY).bounding == 0
    only = caps.capability_sets(add=["NET_BIND_SERVICE"], drop=["all"], limit=EVERY)
    assert caps.names_of(only.bounding) == ("CAP_NET_BIND_SERVICE",)
    assert not caps.capability_sets(add=["KILL"], drop=["KILL"], limit=EVERY).bounding & caps.mask_of(["KILL"])
    most = caps.capability_sets(add=["ALL"], drop=["SYS_ADMIN"], limit=EVERY)
    assert most.bounding == EVERY & ~caps.mask_of(["SYS_ADMIN"])


def test_a_user_other_than_root_has_none_in_effect_but_keeps_the_bounding_set() -> None:
    sets = caps.capability_sets(uid=1000, limit=EVERY)
    assert (sets.effective, sets.permitted, sets.ambient) == (0, 0, 0)
    assert sets.bounding == 0xA80425FB


def test_privileged_ignores_drop() -> None:
    assert caps.capability_sets(drop=["ALL"], privileged=True, limit=EVERY).bounding == EVERY


def test_what_the_daemon_lacks_is_warned_about_only_when_named() -> None:
    limit = EVERY & ~caps.mask_of(["SYS_RESOURCE", "CHOWN"])
    assert caps.capability_sets(limit=limit).warnings == ()
    assert caps.capability_sets(add=["ALL"], limit=limit).warnings == ()
    sets = caps.capability_sets(add=["SYS_RESOURCE"], limit=limit)
    assert len(sets.warnings) == 1 and "CAP_SYS_RESOURCE" in sets.warnings[0]
    assert not sets.bounding & caps.mask_of(["SYS_RESOURCE"])


def test_unknown_name_is_refused_with_the_name() -> None:
    with pytest.raises(InvalidInput, match="NET_BIND_SERVIEC"):
        caps.capability_sets(add=["NET_BIND_SERVIEC"])
