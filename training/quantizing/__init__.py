"""Static int8: graph surgery, calibration on real streams, the search for harmed layers."""
