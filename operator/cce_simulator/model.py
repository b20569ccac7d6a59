"""Base of everything the simulator reads as JSON: frozen, closed records with clear complaints.

Not for: what the simulated cloud sends or receives; that is deliberately loose and lives with the routes.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """Input that cannot be used; the text names every bad field, its value and what is allowed."""


def _json_name(name: str) -> str:
    """`cluster_id` -> `clusterID`, `server_ids` -> `serverIDs`, `job_seconds` -> `jobSeconds`."""
    first, *rest = name.split("_")
    return first + "".join({"id": "ID", "ids": "IDs", "urn": "URN"}.get(part, part.capitalize()) for part in rest)


class Record(BaseModel):
    """A frozen record; JSON in camelCase, Python arguments in snake_case, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=_json_name,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Build from decoded JSON. Raises ConfigError."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ConfigError("; ".join(_complaints(error))) from error

    def to_json(self) -> dict[str, object]:
        """The record as JSON values, fields that are unset (None) left out."""
        return self.model_dump(mode="json", exclude_none=True)


def _complaints(error: ValidationError) -> list[str]:
    complaints = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "(whole document)"
        given = "" if item["type"] == "missing" else f", got {item['input']!r:.80}"
        remedy = "unknown field, remove it" if item["type"] == "extra_forbidden" else item["msg"]
        complaints.append(f"{field}: {remedy}{given}")
    return complaints
