//! A PKCS #11 token's key for `sealpod`: a program of its own, because a static binary can't load the vendor's
//! library and because that library needs no other key.

fn main() {}
