"""The evaluation report's parts: charts, alignments, tables, the page around them."""
