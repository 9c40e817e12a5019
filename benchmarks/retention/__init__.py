"""What rounding does to robustness: one table over students, number formats and whose gradient an attack follows."""
