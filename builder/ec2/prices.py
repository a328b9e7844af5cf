"""What an EC2 machine costs: list prices as an estimate, and what AWS says of the spot market.

AWS's price list has an API that needs a right of its own and answers in megabytes, so the common GPU types stand here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import AuthError, BuilderError, ForbiddenError
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.aws.session import Aws
    from builder.runtime import Runtime

__all__ = ["PRICES_DATE", "Price", "address_per_h", "disk_per_h", "on_demand_per_h", "spot_price"]

PRICES_DATE = "2025-06"
"""The month whose public list prices these follow: Linux, on demand, without tax. Nothing asks AWS for newer ones, so
all that is shown of them is an estimate."""
PRICED_REGIONS = ("us-east-1", "us-east-2", "us-west-2")
"""Regions that have these prices; others cost up to half as much again."""
ON_DEMAND: dict[str, float] = {
    "g4dn.xlarge": 0.526,
    "g4dn.2xlarge": 0.752,
    "g4dn.4xlarge": 1.204,
    "g4dn.8xlarge": 2.176,
    "g4dn.12xlarge": 3.912,
    "g4dn.16xlarge": 4.352,
    "g5.xlarge": 1.006,
    "g5.2xlarge": 1.212,
    "g5.4xlarge": 1.624,
    "g5.8xlarge": 2.448,
    "g5.12xlarge": 5.672,
    "g5.16xlarge": 4.096,
    "g5.24xlarge": 8.144,
    "g5.48xlarge": 16.288,
    "g6.xlarge": 0.8048,
    "g6.2xlarge": 0.9776,
    "g6.4xlarge": 1.3232,
    "g6.8xlarge": 2.0144,
    "g6.12xlarge": 4.6016,
    "g6.16xlarge": 3.3968,
    "g6.24xlarge": 6.6752,
    "g6.48xlarge": 13.3504,
    "g6e.xlarge": 1.861,
    "g6e.2xlarge": 2.2421,
    "g6e.4xlarge": 3.0042,
    "g6e.8xlarge": 4.5286,
    "g6e.16xlarge": 7.5772,
    "p3.2xlarge": 3.06,
    "p3.8xlarge": 12.24,
    "p3.16xlarge": 24.48,
}
"""$/h."""
DISK_PER_GB_MONTH = 0.08
"""gp3."""
ADDRESS_PER_H = 0.005
"""A public IPv4 address."""
HOURS_PER_MONTH = 730.0


@dataclass(frozen=True)
class Price:
    """$/h of the machine alone; None: not known. `source` says in words where it comes from."""

    per_h: float | None
    source: str


def on_demand_per_h(instance_type: str, region: str) -> Price:
    """The list price. Pure."""
    known = ON_DEMAND.get(instance_type)
    if known is None:
        return Price(None, f"no price of {instance_type} is known here")
    if region not in PRICED_REGIONS:
        return Price(None, f"no price in {region} is known here; in {PRICED_REGIONS[0]} it is ${known:.3f}/h")
    return Price(known, f"list price of {PRICES_DATE}, an estimate")


def spot_price(run: Runtime, aws: Aws, instance_type: str) -> Price:
    """The dearest zone's present spot price, since AWS chooses the zone; not known if AWS does not tell.

    Raises AuthError without credentials.
    """
    try:
        found = aws.call(
            "DescribeSpotPriceHistory",
            InstanceTypes=[instance_type],
            ProductDescriptions=["Linux/UNIX"],
            StartTime=iso_time(run.clock.unix_s()),
            MaxResults=100,
        )
        newest: dict[str, tuple[str, float]] = {}
        for each in found.get("SpotPriceHistory", []):
            zone, entry = str(each.get("AvailabilityZone")), (str(each.get("Timestamp")), float(each["SpotPrice"]))
            newest[zone] = max(newest.get(zone, entry), entry)
    except ForbiddenError as error:
        return Price(None, f"the spot price is not known: {error}")
    except AuthError:
        raise
    except (BuilderError, KeyError, TypeError, ValueError) as error:
        return Price(None, f"the spot price is not known: {error}")
    if not newest:
        return Price(None, f"AWS has no spot price of {instance_type} in {aws.region}")
    prices = [price for _, price in newest.values()]
    return Price(max(prices), f"spot price of the dearest of {len(prices)} zones")


def disk_per_h(disk_gb: float) -> float:
    """A gp3 volume, $/h. Pure."""
    return disk_gb * DISK_PER_GB_MONTH / HOURS_PER_MONTH


def address_per_h() -> float:
    """The machine's public address, $/h. Pure."""
    return ADDRESS_PER_H
