-- SPDX-License-Identifier: GPL-3.0-or-later
-- Makes wrk print its result as one JSON line, for measure.py. Without a request() of its own wrk sends the same bytes each time.
done = function(summary, latency)
    local e = summary.errors
    io.write(string.format('{"requests": %d, "duration_us": %d, "failed": %d, "p50_us": %d, "p99_us": %d}\n',
        summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50), latency:percentile(99)))
end
