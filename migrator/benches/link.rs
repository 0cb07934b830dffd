//! A page connection between two agents on one machine: plain TCP beside TLS, the sessions' own code at both ends.
//!
//! What is measured is the time on the clock: both ends work at the same time, as two hosts do.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rackferry_migrator::conn::{self, FrameReader, FrameWriter, PageRead, PageWrite};
use rackferry_migrator_protocol::frame::{Hello, Kind, Role};
use rackferry_tls::{Admission, Authority, Identity, Role as Who, Tls, authority::LIFE};
use tokio::net::TcpListener;

const PAGE: usize = 4096;
/// Pages of a batch, as a source sends it: each from where QEMU's stream has it.
const PAGES: usize = 256;
/// Batches until the far end is heard.
const BATCHES: usize = 256;
const HOST: &str = "far";

type Writer = FrameWriter<PageWrite>;
type Reader = FrameReader<PageRead>;

/// A connection whose far end reads everything and says a word after [`BATCHES`].
async fn connect(tls: Option<Tls>) -> (Reader, Writer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound").to_string();
    let far = tls.clone();
    tokio::spawn(async move {
        let (stream, _, ticket) = Admission::default().accept(&listener).await;
        let (_, _peer, (mut reader, mut writer)) =
            conn::greeting(stream, far.as_ref(), ticket).await.expect("a greeting");
        conn::accept(&mut writer, 2).await.expect("a caller that listens");
        let (mut payload, mut batches) = (Vec::new(), 0);
        while reader.next(&mut payload).await.is_ok() {
            batches += 1;
            if batches % BATCHES == 0 && writer.send(Kind::Ack, &[]).await.is_err() {
                return;
            }
        }
    });
    let hello = Hello { host_id: 1, role: Role::Neighbour };
    conn::dial(&addr, HOST, &hello, tls.as_ref()).await.expect("the far end answers")
}

async fn send(pages: &[u8], (reader, writer): &mut (Reader, Writer)) {
    let parts: Vec<&[u8]> = pages.chunks(PAGE).collect();
    for _ in 0..BATCHES {
        writer.send(Kind::Batch, &parts).await.expect("the far end reads");
    }
    reader.next(&mut Vec::new()).await.expect("the far end has read");
}

fn link(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = Authority::create(dir.path()).expect("a CA");
    let own = dir.path().join(HOST);
    authority.issue(&own, &Identity::new(Who::Agent, HOST), LIFE).expect("a certificate");
    let tls = Tls::open(&own, &[Who::Agent]).expect("good files");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    let pages: Vec<u8> = (0..PAGES * PAGE).map(|n| (n / 7) as u8).collect();
    let mut group = criterion.benchmark_group("link");
    group.throughput(Throughput::Bytes((BATCHES * PAGES * PAGE) as u64)).sample_size(10);
    for (name, tls) in [("plain TCP", None), ("TLS", Some(tls))] {
        let mut ends = runtime.block_on(connect(tls));
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(send(&pages, &mut ends)));
        });
    }
    group.finish();
}

criterion_group!(benches, link);
criterion_main!(benches);
