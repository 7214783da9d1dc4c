"""What a camera brought home: photos, masks, lenses and poses."""
