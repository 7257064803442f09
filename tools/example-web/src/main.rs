//! The program in the example image of `scripts/demo`: a web server with one page.
//!
//! Does: answers every HTTP request on port 80 with the same page, and prints a line for each. Ends on
//! SIGTERM and SIGINT, also as pid 1: the kernel delivers only those signals to pid 1 that it waits for.
//! Reads: the first line of each request.
//! Needs: nothing. Built with `-C target-feature=+crt-static`, it runs in an image that has only this file.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv6Addr, Shutdown, TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("example-web: it takes no arguments, and serves a page on port 80");
        return ExitCode::from(2);
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("example-web: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal arrives.
fn serve() -> io::Result<()> {
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.add(Signal::SIGINT);
    end.thread_block()?;
    let listener = listen(80).map_err(|error| io::Error::other(format!("listen on port 80: {error}")))?;
    println!("listening on port 80");
    thread::Builder::new().spawn(move || {
        for client in listener.incoming().flatten() {
            // A client may close the connection early. If no thread can be started, the connection is closed.
            let _ = thread::Builder::new().spawn(move || answer(client).ok());
        }
    })?;
    end.wait()?;
    Ok(())
}

/// Listens on all addresses, or on IPv4 only if the kernel has no IPv6.
fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    let from = client.peer_addr()?.ip().to_canonical();
    // The limit for the head of a request. The body is not read.
    let mut reader = BufReader::new(client.try_clone()?.take(16 * 1024));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    println!("{from} {}", request.trim_end());
    let page = format!("Hello from a container, {from}.\n");
    let length = page.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes())?;
    if !request.starts_with("HEAD ") {
        client.write_all(page.as_bytes())?;
    }
    client.shutdown(Shutdown::Write)
}
