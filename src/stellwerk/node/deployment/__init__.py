"""Versions, deployments and bundles: upload, roll out, freeze run manifests."""
