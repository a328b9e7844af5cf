"""What all models of RunPod's API share: names in camelCase; answers forgive, requests do not.

Answers ignore fields they do not know (the API moves ahead of its document) and raise pydantic's ValidationError
where one that is needed is missing; `builder.api.problems` makes a BadAnswerError of it. Requests forbid fields that
are not listed, because REST v2 does.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

__all__ = ["AnswerModel", "RequestModel"]


class AnswerModel(BaseModel):
    """Base of what the API gives."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        """One null where the document allows none must not hide every other thing of a list."""
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class RequestModel(BaseModel):
    """Base of what the API takes."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def body(self) -> dict[str, Any]:
        """JSON for the API, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
