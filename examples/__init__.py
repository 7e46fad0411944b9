"""Small programs that use Foal's tasks: another library trained on one, all of them tried a little."""
