"""Look for near duplicates, wrong labels and odd images in a data set."""
