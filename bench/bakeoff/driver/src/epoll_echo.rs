//! The yardstick: a blocking-accept, level-triggered epoll echo on one thread. Never grows features.

use std::os::fd::AsRawFd;

/// Accepts `conns` connections on `port`, then echoes until all are closed.
pub fn run(port: u16, conns: usize) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the driver chose a free port");
    crate::client::cubic(listener.as_raw_fd());
    println!("ready");
    let streams: Vec<_> = (0..conns).map(|_| listener.accept().expect("accept").0).collect();
    // SAFETY: plain system calls on descriptors owned by `streams`, buffers of the lengths given.
    unsafe {
        let epoll = libc::epoll_create1(0);
        for stream in &streams {
            stream.set_nodelay(true).expect("nodelay");
            let mut event =
                libc::epoll_event { events: libc::EPOLLIN as u32, u64: stream.as_raw_fd() as u64 };
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &mut event);
        }
        println!("go");
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
        let mut buf = vec![0u8; 16 * 1024];
        let mut live = conns;
        while live > 0 {
            let n = libc::epoll_wait(epoll, events.as_mut_ptr(), 256, -1);
            for event in &events[..n.max(0) as usize] {
                let fd = event.u64 as i32;
                let got = libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT);
                if got <= 0 {
                    libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut());
                    live -= 1;
                    continue;
                }
                let mut sent = 0;
                while sent < got {
                    let n = libc::send(
                        fd,
                        buf.as_ptr().add(sent as usize).cast(),
                        (got - sent) as usize,
                        libc::MSG_NOSIGNAL,
                    );
                    if n <= 0 {
                        break;
                    }
                    sent += n;
                }
            }
        }
    }
}
