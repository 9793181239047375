//! Numbers of the pod's interfaces.

use protocols::agent::NetworkStats;

/// Interfaces of one answer.
const MAX_INTERFACES: usize = 256;

/// Reads the text of `/proc/net/dev`; what stays inside the pod doesn't count.
pub fn network(table: &str) -> Vec<NetworkStats> {
    table.lines().filter_map(interface).filter(|i| i.name != "lo").take(MAX_INTERFACES).collect()
}

fn interface(line: &str) -> Option<NetworkStats> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // Eight numbers received, then eight sent: bytes, packets, errors, dropped, …
    let [
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = numbers[..]
    else {
        return None;
    };
    let mut stats = NetworkStats::new();
    name.trim().clone_into(&mut stats.name);
    stats.rx_bytes = rx_bytes;
    stats.rx_packets = rx_packets;
    stats.rx_errors = rx_errors;
    stats.rx_dropped = rx_dropped;
    stats.tx_bytes = tx_bytes;
    stats.tx_packets = tx_packets;
    stats.tx_errors = tx_errors;
    stats.tx_dropped = tx_dropped;
    Some(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_becomes_numbers() {
        let table = "Inter-|   Receive                            |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
            lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
            eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n  \
            bad: 1 2 x\n";
        let found = network(table);
        assert_eq!(found.len(), 1);
        let eth0 = &found[0];
        assert_eq!((eth0.name.as_str(), eth0.rx_bytes, eth0.rx_dropped), ("eth0", 1, 4));
        assert_eq!((eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped), (5, 6, 7, 8));
    }
}
