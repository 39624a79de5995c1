//! Complex messages made small, and unpacked with care.

use super::varint::{Reader, append};
use super::{Columns, Complex, Content, Row};
pub use crate::base::config::Compression;
use crate::base::limits::COMPLEX_BYTES;
use crate::base::reason::LinkReason;
use std::io;
use zstd::bulk::{Compressor, Decompressor};

/// The first byte of a message: its content as it is, by LZ4, by zstd, by zstd with the dictionary.
const STORED: u8 = 0;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;
const TRAINED: u8 = 3;
/// LZ4 makes at most so many bytes of one.
const LZ4_RATIO: usize = 255;
/// zstd's own default: the next ones cost more than they save on some kilobytes.
const ZSTD_LEVEL: i32 = 3;

enum How {
    Stored,
    Lz4,
    Zstd { tag: u8, compressor: Compressor<'static> },
}

/// Writes complex messages, re-using its working memory.
pub struct Packer {
    columns: Columns,
    content: Vec<u8>,
    how: How,
}

impl Packer {
    /// zstd takes a dictionary, if it's not empty, which all receivers must have.
    ///
    /// Errors: zstd can't use it, or has no memory.
    pub fn new(compression: Compression, dictionary: &[u8]) -> io::Result<Packer> {
        let how = match compression {
            Compression::None => How::Stored,
            Compression::Lz4 => How::Lz4,
            Compression::Zstd if dictionary.is_empty() => How::Zstd { tag: ZSTD, compressor: Compressor::new(ZSTD_LEVEL)? },
            Compression::Zstd => How::Zstd { tag: TRAINED, compressor: Compressor::with_dictionary(ZSTD_LEVEL, dictionary)? },
        };
        Ok(Packer { columns: Columns::default(), content: Vec::new(), how })
    }

    /// Appends a complex message, and sorts its rows.
    ///
    /// Panics when a row names a presence that there is not.
    pub fn pack<'o>(
        &mut self,
        out: &mut Vec<u8>,
        others: impl ExactSizeIterator<Item = &'o [u8]>,
        rows: &mut [Row],
        presences: &[impl AsRef<[u8]>],
    ) {
        self.content.clear();
        self.columns.write(&mut self.content, others, rows, presences);
        let start = out.len();
        let tag = match &self.how {
            How::Stored => STORED,
            How::Lz4 => LZ4,
            How::Zstd { tag, .. } => *tag,
        };
        out.push(tag);
        append(out, self.content.len() as u64);
        let head = out.len();
        if self.compress(out, head).is_none_or(|bytes| bytes >= self.content.len()) {
            out.truncate(head);
            out[start] = STORED;
            out.extend_from_slice(&self.content);
        }
    }

    /// Appends the compressed content, and gives its length. `None`: it stays as it is.
    fn compress(&mut self, out: &mut Vec<u8>, head: usize) -> Option<usize> {
        let most = match &self.how {
            How::Stored => return None,
            How::Lz4 => lz4_flex::block::get_maximum_output_size(self.content.len()),
            How::Zstd { .. } => zstd::zstd_safe::compress_bound(self.content.len()),
        };
        out.resize(head + most, 0);
        let bytes = match &mut self.how {
            How::Stored => None,
            How::Lz4 => lz4_flex::block::compress_into(&self.content, &mut out[head..]).ok(),
            How::Zstd { compressor, .. } => compressor.compress_to_buffer(&self.content, &mut out[head..]).ok(),
        };
        out.truncate(head + bytes.unwrap_or(0));
        bytes
    }
}

/// Reads complex messages, re-using its working memory.
pub struct Unpacker {
    content: Content,
    bytes: Vec<u8>,
    plain: Decompressor<'static>,
    trained: Option<Decompressor<'static>>,
}

impl Unpacker {
    /// Takes messages of every compression; those by dictionary only with the same one.
    ///
    /// Errors: zstd can't use it, or has no memory.
    pub fn new(dictionary: &[u8]) -> io::Result<Unpacker> {
        let trained = (!dictionary.is_empty()).then(|| Decompressor::with_dictionary(dictionary)).transpose()?;
        Ok(Unpacker { content: Content::default(), bytes: Vec::new(), plain: Decompressor::new()?, trained })
    }

    /// Errors: `TooLong` for what claims more than it may; `BadFrame`.
    pub fn unpack<'a>(&'a mut self, message: &'a [u8]) -> Result<Complex<'a>, LinkReason> {
        let (&tag, rest) = message.split_first().ok_or(LinkReason::BadFrame)?;
        let mut reader = Reader::new(rest);
        let claimed = reader.number().ok_or(LinkReason::BadFrame)?;
        if claimed > u64::from(COMPLEX_BYTES) {
            return Err(LinkReason::TooLong);
        }
        let (claimed, packed) = (claimed as usize, reader.rest());
        let is_possible = match tag {
            STORED => claimed == packed.len(),
            LZ4 => claimed <= packed.len().saturating_mul(LZ4_RATIO),
            // The frame has its own claim, which zstd itself checks.
            _ => matches!(zstd::zstd_safe::get_frame_content_size(packed), Ok(Some(bytes)) if bytes == claimed as u64),
        };
        if !is_possible {
            return Err(LinkReason::BadFrame);
        }
        if tag != STORED {
            self.bytes.resize(claimed, 0);
        }
        let unpacked = match (tag, &mut self.trained) {
            (STORED, _) => Some(claimed),
            (LZ4, _) => lz4_flex::block::decompress_into(packed, &mut self.bytes).ok(),
            (ZSTD, _) => self.plain.decompress_to_buffer(packed, &mut self.bytes[..]).ok(),
            (TRAINED, Some(trained)) => trained.decompress_to_buffer(packed, &mut self.bytes[..]).ok(),
            _ => None,
        };
        if unpacked != Some(claimed) {
            return Err(LinkReason::BadFrame);
        }
        let bytes = if tag == STORED { packed } else { &self.bytes[..] };
        self.content.read(bytes)?;
        Ok(Complex { bytes, content: &self.content })
    }
}
