"""The kernel's data as C sees it: types by name, and typed objects that read memory when they are asked."""
