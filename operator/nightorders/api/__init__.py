"""The custom resources: pydantic models and what is generated from them. Imports pydantic and the standard library only."""
