//! Sockets whose sends the kernel encrypts (kTLS, CONFIG_TLS).
//!
//! Lives on: the connection's core; `is_there` on any thread. Only the sending half is the kernel's: sending is what fan-out does,
//! and with records that are no data a receive of io_uring would end in an error (EIO), for it has no room for their kind.
//! Invariant: a socket that is sealed never sends a byte in the clear.

use super::socket::borrow;
use crate::base::id::RawSocket;
use crate::base::sealing::{Cipher, Sealing};
use nix::sys::socket::{
    setsockopt,
    sockopt::{TcpTlsTx, TcpUlp, TlsCryptoInfo},
};
use std::io::{self, Read};
use std::mem::{offset_of, size_of, zeroed};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const NAME: [u8; 3] = *b"tls";
/// An alert, and what it says: a warning, close_notify (RFC 8446 6.1).
const ALERT: u8 = 21;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// From now on the kernel encrypts what this socket sends.
///
/// # Errors
/// The kernel can't; or the peer has ended the connection already.
pub(super) fn seal(socket: RawSocket, sealing: &Sealing) -> io::Result<()> {
    let socket = borrow(socket);
    setsockopt(&*socket, TcpUlp::default(), &NAME)?;
    Ok(setsockopt(&*socket, TcpTlsTx, &told(sealing))?)
}

/// As the kernel wants it: of the IV, the first 4 bytes are its salt.
fn told(sealing: &Sealing) -> TlsCryptoInfo {
    let (salt, iv) = sealing.iv.split_first_chunk().expect("an IV has 12 bytes");
    let (salt, iv) = (*salt, iv.try_into().expect("an IV has 12 bytes"));
    let rec_seq = sealing.sequence.to_be_bytes();
    let info = |cipher_type| libc::tls_crypto_info { version: libc::TLS_1_3_VERSION, cipher_type };
    match sealing.cipher {
        Cipher::Aes128Gcm => TlsCryptoInfo::Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128 {
            info: info(libc::TLS_CIPHER_AES_GCM_128),
            iv,
            key: *sealing.key.first_chunk().expect("16 of 32"),
            salt,
            rec_seq,
        }),
        Cipher::Aes256Gcm => TlsCryptoInfo::Aes256Gcm(libc::tls12_crypto_info_aes_gcm_256 {
            info: info(libc::TLS_CIPHER_AES_GCM_256),
            iv,
            key: sealing.key,
            salt,
            rec_seq,
        }),
    }
}

/// Whether this kernel does it, with both ciphers: tried on a connection of our own.
pub(super) fn is_there() -> bool {
    let works = |cipher| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut reader = TcpStream::connect(listener.local_addr()?)?;
        let (writer, _) = listener.accept()?;
        let socket = RawSocket(writer.as_raw_fd());
        seal(socket, &Sealing { cipher, key: [1; 32], iv: [2; 12], sequence: 0 })?;
        say_goodbye(socket);
        drop(writer);
        let mut said = Vec::new();
        reader.read_to_end(&mut said)?;
        // One record of TLS: header, two bytes, kind, tag.
        io::Result::Ok(said.len() == 5 + 2 + 1 + 16)
    };
    [Cipher::Aes128Gcm, Cipher::Aes256Gcm].into_iter().all(|cipher| works(cipher).unwrap_or(false))
}

/// Room for one control message of one byte, aligned as the kernel wants it.
#[repr(C)]
struct Kind {
    header: libc::cmsghdr,
    kind: u8,
}

/// Where the kernel encrypts: tells the peer that nothing more will come, so that nobody on the way can pretend it. A peer whose
/// socket takes nothing more is not told.
pub(super) fn say_goodbye(socket: RawSocket) {
    if !is_sealed(socket) {
        return;
    }
    let mut words = CLOSE_NOTIFY;
    let mut part = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: words.len() };
    // SAFETY: both are plain C structures of numbers and pointers, for which all zeros is a value.
    let (mut message, mut control): (libc::msghdr, Kind) = unsafe { (zeroed(), zeroed()) };
    control.header.cmsg_level = libc::SOL_TLS;
    control.header.cmsg_type = libc::TLS_SET_RECORD_TYPE;
    control.header.cmsg_len = (offset_of!(Kind, kind) + 1) as _;
    control.kind = ALERT;
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = ((&raw mut control).cast(), size_of::<Kind>() as _);
    // SAFETY: the message and all it points to live until the call returns; the kernel only reads them.
    let _told_or_gone = unsafe { libc::sendmsg(socket.0, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
}

fn is_sealed(socket: RawSocket) -> bool {
    let (mut name, mut length) = ([0u8; 16], 16);
    // SAFETY: the kernel writes at most `length` bytes to `name`, which has that many, and the length of what it wrote.
    let asked =
        unsafe { libc::getsockopt(socket.0, libc::IPPROTO_TCP, libc::TCP_ULP, name.as_mut_ptr().cast(), (&raw mut length).cast()) };
    asked == 0 && name.starts_with(&NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_in_the_clear_hears_no_goodbye() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (writer, _) = listener.accept().unwrap();
        say_goodbye(RawSocket(writer.as_raw_fd()));
        drop(writer);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn the_kernel_is_told_salt_and_rest_of_the_iv() {
        let mut sealing = Sealing { cipher: Cipher::Aes128Gcm, key: [0; 32], iv: [0; 12], sequence: 0x0102 };
        sealing.iv = std::array::from_fn(|at| at as u8);
        sealing.key = std::array::from_fn(|at| at as u8);
        let TlsCryptoInfo::Aes128Gcm(told) = told(&sealing) else { panic!("another cipher") };
        assert_eq!((told.salt, told.iv), ([0, 1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11]));
        assert_eq!((told.key[15], told.rec_seq), (15, [0, 0, 0, 0, 0, 0, 1, 2]));
        assert_eq!(told.info.version, 0x0304);
    }
}
