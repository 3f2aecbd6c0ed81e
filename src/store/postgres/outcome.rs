//! Recording what came of attempts.
