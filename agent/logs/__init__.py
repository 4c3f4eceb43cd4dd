"""Containers' output on its way to the control plane: read on demand (`tail`, `server`), or shipped (`shipper`)."""
