"""The inventory fold: from facts to the five reports, one small file per report."""
