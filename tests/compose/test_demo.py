"""`eastwest demo` does what it says, and leaves nothing."""

from pathlib import Path

import pytest

from tests.compose.commands import eastwest

pytestmark = [pytest.mark.nats, pytest.mark.netns, pytest.mark.timeout(120)]


def labs() -> set[str]:
    return {path.name for path in Path("/run/netns").glob("ew-lab-*")} if Path("/run/netns").exists() else set()


async def test_the_shop_is_open_then_closed_but_for_what_its_policies_allow():
    before = labs()
    code, output = await eastwest("demo")
    assert code == 0, output
    assert "now closed: web/visitor → shop/cart 8080" in output
    assert "now closed: shop/cart → data/orders-db 5432" in output
    assert "now closed: web/storefront → shop/cart 8080" not in output
    assert "0 opened, 20 closed, 16 as before" in output
    assert "now open: web/visitor → shop/cart 8080" in output  # once it is a storefront
    assert "now open: web/storefront → shop/cart-2 8080" in output
    assert "NetworkPolicy/shop/checkout-to-orders" in output
    for report in ("Cluster  ", "ENFORCER", "SEGMENTATION", "BACK-ENDS", "MODE"):
        assert report in output
    assert labs() <= before
