"""What is written of a run: TensorBoard records, tables, the run record."""
