"""Projects whose models nobody here wrote: Wagtail's, and Oscar's.

Each folder holds what its users write themselves, by the project's own docs, and what fills it.
"""
