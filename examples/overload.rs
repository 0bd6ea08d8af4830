//! The clients of `bench/overload.sh`: each asks again as soon as it is answered, and after a pause
//! where it was refused.
//!
//! ```sh
//! overload URL CLIENTS SECONDS [PAUSE_MILLISECONDS]
//! ```
//!
//! It prints one line: the 200s a second, other answers a second, and the median and the 99th
//! percentile of how long a 200 took, in milliseconds, of the requests that ended after the first
//! second. A client whose connection breaks ends the run with an error.

use std::cell::RefCell;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Seen {
    took: Vec<Duration>,
    others: u64,
}

#[derive(Clone)]
struct Plan {
    request: Rc<[u8]>,
    address: SocketAddr,
    pause: Duration,
    counted_from: Instant,
    ends: Instant,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, clients, seconds, rest @ ..] = &arguments[..] else {
        return Err("overload URL CLIENTS SECONDS [PAUSE_MILLISECONDS]".into());
    };
    let url = url.strip_prefix("http://").ok_or("the URL begins with http://")?;
    let (host, path) = url.split_once('/').ok_or("the URL has a path")?;
    let pause = rest.first().map_or(Ok(0), |millis| millis.parse())?;
    let (clients, seconds) = (clients.parse::<usize>()?, seconds.parse::<f64>()?);
    let counted_from = Instant::now() + WARM_UP;
    let plan = Plan {
        request: format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes().into(),
        address: host.parse()?,
        pause: Duration::from_millis(pause),
        counted_from,
        ends: counted_from + Duration::from_secs_f64(seconds),
    };
    let seen = Rc::new(RefCell::new(Seen::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let run = |_| tokio::task::spawn_local(client(plan.clone(), seen.clone()));
        let tasks: Vec<_> = (0..clients).map(run).collect();
        for task in tasks {
            task.await??;
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    let Seen { took, others } = &mut *seen.borrow_mut();
    took.sort();
    let percentile = |share: f64| {
        let at = (took.len().saturating_sub(1)) as f64 * share;
        took.get(at as usize).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    };
    println!(
        "{:.0} {:.0} {:.1} {:.1}",
        took.len() as f64 / seconds,
        *others as f64 / seconds,
        percentile(0.5),
        percentile(0.99)
    );
    Ok(())
}

async fn client(plan: Plan, seen: Rc<RefCell<Seen>>) -> std::io::Result<()> {
    let mut connection = TcpStream::connect(plan.address).await?;
    connection.set_nodelay(true)?;
    let mut received = Vec::with_capacity(4096);
    loop {
        let begun = Instant::now();
        if begun >= plan.ends {
            return Ok(());
        }
        connection.write_all(&plan.request).await?;
        received.clear();
        let ok = loop {
            if connection.read_buf(&mut received).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(ok) = complete(&received) {
                break ok;
            }
        };
        let now = Instant::now();
        if now >= plan.counted_from && now < plan.ends {
            let mut seen = seen.borrow_mut();
            if ok {
                seen.took.push(now - begun);
            } else {
                seen.others += 1;
            }
        }
        if !ok && !plan.pause.is_zero() {
            tokio::time::sleep(plan.pause).await;
        }
    }
}

/// Whether the answer is a 200, once it is there to its end. All that is asked announce a length.
fn complete(received: &[u8]) -> Option<bool> {
    const LENGTH: &[u8] = b"content-length:";
    let head = received.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let mut lines = received[..head].split(|byte| *byte == b'\n');
    let ok = lines.next()?.get(9..12) == Some(b"200");
    let length = lines.find(|line| {
        line.get(..LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(LENGTH))
    });
    let length = length.and_then(|line| std::str::from_utf8(&line[LENGTH.len()..]).ok());
    let length: usize = length.and_then(|length| length.trim().parse().ok())?;
    (received.len() >= head + length).then_some(ok)
}
