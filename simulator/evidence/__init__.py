"""Why to believe the model: closed forms, calibration from measurements, validation against others."""
