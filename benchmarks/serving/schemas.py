"""Schemas of bodies for the OpenAPI page.

The bodies themselves are read without a model: a bad request among others is answered, not refused.
"""

from __future__ import annotations

from typing import Any

_NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
DECIDE_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["requests"],
    "properties": {
        "requests": {
            "type": "array",
            "items": {"type": "object"},
            "description": "Features of each request by name, raw or as codes; also its key, if it has one.",
        }
    },
}
_DECISION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"type": "array", "items": {"type": "integer"}, "description": "option index of each decision"},
        "options": {"type": "object", "description": "option of each decision by name"},
        "status": {"type": "string", "description": "ok, or why the request got the static action"},
        "applied": {"type": "string", "enum": ["policy", "static"]},
        "message": {"type": "string", "description": "details of a status that is not ok"},
        "policy_action": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "what the policy decided, where the static action is applied",
        },
    },
}
DECIDE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A decision for every request, in their order",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "decisions": {"type": "array", "items": _DECISION},
                        "prices_version": {"type": "integer"},
                        "prices_state": {"type": "string", "enum": ["fresh", "last-good", "stale"]},
                        "mode": {"type": "string"},
                        "guards": {"type": "array", "items": {"type": "string"}},
                        "policy_version": {"type": "string"},
                    },
                }
            }
        },
    }
}
PRICES_BODY: dict[str, Any] = {
    "type": "object",
    "properties": {"prices": {**_NUMBERS, "description": "currency per core-second"}, "source": {"type": "string"}},
    "required": ["prices"],
}
MODE_BODY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "mode": {"type": "string", "enum": ["shadow", "enforce", "static"]},
        "percent": {"type": "number", "minimum": 0, "maximum": 100},
    },
    "required": ["mode"],
}
TELEMETRY_BODY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "minute": {"type": "integer", "minimum": 0, "maximum": 1439, "description": "minute of the day"},
        "qps": {"type": "number", "nullable": True},
        "load": {**_NUMBERS, "description": "core-seconds per second of each cluster"},
        "budget": _NUMBERS,
        "degradation": _NUMBERS,
        "backlog": _NUMBERS,
        "state": {"type": "string", "enum": ["value", "no-traffic", "missing", "stale"]},
        "late": {"type": "number", "description": "share of late requests"},
        "revenue": {"type": "number", "description": "revenue per request, currency"},
    },
    "required": ["minute"],
}


def body_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an OpenAPI operation that describes its body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
