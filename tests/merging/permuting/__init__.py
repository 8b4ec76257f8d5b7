"""Tests of units brought into another order: functions that must stay, and planted orders that must be found."""
