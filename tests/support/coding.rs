//! Bodies in gzip and deflate, by a library's streams rather than the gateway's code.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::GzBuilder;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

/// `coding` is a name as headers have it.
pub fn compress(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let level = Compression::best();
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        other => panic!("no coding {other}"),
    }
}

/// Gzip that says when it was made, as some libraries have it by default.
pub fn gzip_at(seconds: u32, bytes: &[u8]) -> Vec<u8> {
    let builder = GzBuilder::new().mtime(seconds);
    let mut encoder = builder.write(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[track_caller]
pub fn decompress(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    match coding {
        "gzip" => GzDecoder::new(bytes).read_to_end(&mut read).expect("gzip"),
        "deflate" => ZlibDecoder::new(bytes).read_to_end(&mut read).expect("zlib"),
        other => panic!("no coding {other}"),
    };
    read
}
