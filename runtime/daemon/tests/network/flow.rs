//! How much goes from one container to another.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::guest::Guest;

/// What goes before it is counted: a connection begins slowly, and a token bucket full.
const BEGINNING: Duration = Duration::from_millis(400);

/// Bits per second of what was sent, by TCP, from one to the other, over `time`.
pub fn rate(from: &Guest, to: &Guest, ip: impl Into<IpAddr>, time: Duration) -> f64 {
    let listener = to.within(|| TcpListener::bind(("::", 0)).unwrap());
    let address = SocketAddr::new(ip.into(), listener.local_addr().unwrap().port());
    let mut sender = from.within(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap());
    let (mut receiver, _) = listener.accept().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let block = vec![0; 128 << 10];
            loop {
                if is_over.load(Ordering::Relaxed) || sender.write_all(&block).is_err() {
                    break;
                }
            }
        });
        let mut buffer = vec![0; 1 << 20];
        let mut count = |time: Duration| {
            let (start, mut bytes) = (Instant::now(), 0);
            while start.elapsed() < time {
                bytes += receiver.read(&mut buffer).unwrap();
            }
            bytes as f64 * 8.0 / start.elapsed().as_secs_f64()
        };
        count(BEGINNING);
        let rate = count(time);
        is_over.store(true, Ordering::Relaxed);
        drop(receiver);
        rate
    })
}
