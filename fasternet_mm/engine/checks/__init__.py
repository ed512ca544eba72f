"""What has to fit together: classes and annotations, images, and the state of a training that is resumed."""
