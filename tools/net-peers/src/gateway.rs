//! A gateway of etcd that says what a test wants.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
};

/// Answers one request after another, each on a connection of its own. Returns the requests' first lines.
pub(crate) fn answer(server: &TcpListener, answers: &[&str]) -> Vec<String> {
    let one = |text: &&str| {
        let mut stream = BufReader::new(server.accept().unwrap().0);
        let lines: Vec<String> =
            stream.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        let length = lines.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse().unwrap())
        });
        stream.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}", text.len());
        write!(stream.get_mut(), "{head}\r\n\r\n{text}").unwrap();
        lines[0].clone()
    };
    answers.iter().map(one).collect()
}
