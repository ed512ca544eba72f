"""What has to fit together: classes and annotations, and the state of a training that is resumed."""
