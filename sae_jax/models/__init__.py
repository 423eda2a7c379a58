"""What a lane is: an autoencoder as pure functions, and the parts that they share."""
