"""``dlm_tool``: the actions of the usage document, for operators and scripts."""
