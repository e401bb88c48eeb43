"""Parameters, records, ledger, lineage, gates, registry: what lies under everything."""
