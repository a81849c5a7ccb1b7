"""Virtual addresses: the Services behind them, and which of them an isolated Pod may reach."""
