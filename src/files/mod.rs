//! What the files that an operator names hold.
//!
//! | file | what |
//! |---|---|
//! | [`pem`] | certificates, revocation lists and keys |
//! | [`text`] | text, without the byte order mark that some editors write |

pub mod pem;
pub mod text;
