"""The scripts of the engine on Redis. Each is atomic.

With ``allow-oom``, a queue can be emptied even when the memory is full. Publishing has no such
flag: it is then refused before its first write.
"""

from __future__ import annotations

__all__ = ["BACKLOG", "ENSURE", "LEAVE", "PURGE", "PUT", "SETTLE", "TAKE"]

PUT = """#!lua
local stream, window = KEYS[1], tonumber(ARGV[1])
local at = 3 + ARGV[2]
if redis.call('EXISTS', stream) == 0 then
    for i = 3, at - 1 do redis.call('XGROUP', 'CREATE', stream, ARGV[i], '0', 'MKSTREAM') end
end
local refused = {}
for i = 2, #KEYS do
    local last = at + ARGV[at]
    if window == 0 or redis.call('SET', KEYS[i], '', 'NX', 'EX', window) then
        local reply = redis.pcall('XADD', stream, '*', unpack(ARGV, at + 1, last))
        if type(reply) == 'table' and reply.err then
            refused[#refused + 1] = {i - 2, reply.err}
            redis.call('DEL', KEYS[i])
        end
    end
    at = last + 1
end
return refused
"""

AFTER = """
local function is_after(id, other)
    local ms, number = id:match('(%d+)-(%d+)')
    local other_ms, other_number = other:match('(%d+)-(%d+)')
    if ms ~= other_ms then return tonumber(ms) > tonumber(other_ms) end
    return tonumber(number) > tonumber(other_number)
end
"""

# A worker that was killed leaves its consumer; it is removed after an hour, when it holds nothing.
# A group that was destroyed leaves the messages that it alone has not acknowledged.
ENSURE = (
    """#!lua flags=allow-oom
"""
    + AFTER
    + """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'stream' then return kind end
if kind == 'none' then  -- an empty stream, so that the queue exists without a group too
    redis.call('XGROUP', 'CREATE', KEYS[1], '', '0', 'MKSTREAM')
    redis.call('XGROUP', 'DESTROY', KEYS[1], '')
end
for _, group in ipairs(ARGV) do
    local reply = redis.pcall('XGROUP', 'CREATE', KEYS[1], group, '0', 'MKSTREAM')
    if reply.err and not reply.err:find('BUSYGROUP', 1, true) then return reply end
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
        if consumer[4] == 0 and consumer[6] > 3600000 then
            redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, consumer[2])
        end
    end
end
local first
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local ms, number = info[8]:match('(%d+)-(%d+)')
    local needed = redis.call('XPENDING', KEYS[1], info[2])[2]
        or ('%s-%.0f'):format(ms, number + 1)
    if not first or is_after(first, needed) then first = needed end
end
if first then redis.call('XTRIM', KEYS[1], 'MINID', '=', first) end
return 'stream'
"""
)

# Messages that were given back belong to this consumer, which is no worker.
HEAD = """#!lua flags=allow-oom
local WAITING = 'waiting'
local stream, due, group, consumer = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function pending(of, id) return redis.call('XPENDING', stream, of, id, id, 1)[1] end
local function give_back(id, deliveries, at)
    redis.call('XCLAIM', stream, group, WAITING, 0, id, 'RETRYCOUNT', deliveries, 'JUSTID')
    redis.call('ZADD', due, at, id)
end
"""

# An array of a script ends at its first nil, so there is none.
TAKE = (
    HEAD
    + """
local most, lease = tonumber(ARGV[3]), tonumber(ARGV[4])
local reply, leases = {'', 3600000}, {}
local function add(id, attempt, fields)
    leases[#leases + 1] = now + lease
    leases[#leases + 1] = id
    reply[#reply + 1] = {id, attempt, fields}
end
for _, id in ipairs(redis.call('ZRANGE', due, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)) do
    local entry = pending(group, id)
    local claimed = entry and redis.call('XCLAIM', stream, group, consumer, 0, id)[1]
    if claimed then add(id, entry[4] + 1, claimed[2]) else redis.call('ZREM', due, id) end
end
local rest = most - (#reply - 2)
if rest > 0 then
    local new = redis.call(
        'XREADGROUP', 'GROUP', group, consumer, 'COUNT', rest, 'STREAMS', stream, '>')
    for _, entry in ipairs(new and new[1][2] or {}) do add(entry[1], 1, entry[2]) end
end
if #leases > 0 then
    redis.call('ZADD', due, unpack(leases))
else
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
        if info[2] == group then reply[1] = info[8] end
    end
    local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
    if first[2] then reply[2] = math.max(0, first[2] - now) end
end
return reply
"""
)

SETTLE = (
    HEAD
    + AFTER
    + """
local outcome, delay, lost, groups = ARGV[3], tonumber(ARGV[4]), {}, nil
local done, unneeded, deliveries = {}, {}, {}
local function is_needed(id)
    groups = groups or redis.call('XINFO', 'GROUPS', stream)
    for _, info in ipairs(groups) do
        local other = info[2]
        if other ~= group and (is_after(id, info[8]) or pending(other, id)) then return true end
    end
    return false
end
local settle = {}
function settle.acknowledge(id)
    done[#done + 1] = id
    if not is_needed(id) then unneeded[#unneeded + 1] = id end
end
function settle.extend(id) redis.call('ZADD', due, now + delay, id) end
function settle.retry(id, attempt) give_back(id, attempt, now + delay) end
function settle.release(id, attempt) give_back(id, attempt - 1, now) end
-- One call finds most of them: they are settled about in the order in which they were taken.
for _, entry in ipairs(redis.call(
    'XPENDING', stream, group, ARGV[5], ARGV[#ARGV - 1], #ARGV, consumer)) do
    deliveries[entry[1]] = entry[4]
end
local function deliveries_of(id)
    local entry = pending(group, id)
    return entry and entry[2] == consumer and entry[4]
end
for i = 5, #ARGV, 2 do
    local id, attempt = ARGV[i], tonumber(ARGV[i + 1])
    if (deliveries[id] or deliveries_of(id)) == attempt then
        settle[outcome](id, attempt)
    else
        lost[#lost + 1] = (i - 5) / 2
    end
end
if #done > 0 then
    redis.call('XACK', stream, group, unpack(done))
    redis.call('ZREM', due, unpack(done))
end
if #unneeded > 0 then redis.call('XDEL', stream, unpack(unneeded)) end
return lost
"""
)

LEAVE = (
    HEAD
    + """
local entries
repeat
    entries = redis.call('XPENDING', stream, group, '-', '+', 1000, consumer)
    for _, entry in ipairs(entries) do give_back(entry[1], entry[4], now) end
until #entries == 0
return redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
"""
)

# The server's own lag is missing after some deletions; with one group, it is not needed.
BACKLOG = """#!lua flags=no-writes
local stream, clock = KEYS[1], redis.call('TIME')
local length = redis.call('XLEN', stream)
local reply = {clock[1] * 1000 + math.floor(clock[2] / 1000), length}
if redis.call('EXISTS', stream) == 0 then return reply end
local groups = redis.call('XINFO', 'GROUPS', stream)
for _, info in ipairs(groups) do
    local held = redis.call('XPENDING', stream, info[2])
    local new, waiting, oldest = length - held[1], 0, held[2]
    if #groups > 1 and info[12] then new = info[12] end
    for _, consumer in ipairs(held[4] or {}) do
        if consumer[1] == 'waiting' then waiting = tonumber(consumer[2]) end
    end
    if held[1] == 0 then
        local entry = redis.call('XRANGE', stream, '(' .. info[8], '+', 'COUNT', 1)[1]
        oldest = entry and entry[1] or ''
    end
    reply[#reply + 1] = {info[2], new, held[1], waiting, oldest}
end
return reply
"""

PURGE = """#!lua flags=allow-oom
local stream = KEYS[1]
if redis.call('EXISTS', stream) == 0 then return 0 end
local count = redis.call('XTRIM', stream, 'MAXLEN', '=', 0)
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    redis.call('XGROUP', 'DESTROY', stream, info[2])
    redis.call('XGROUP', 'CREATE', stream, info[2], '$')
    redis.call('DEL', ARGV[1] .. info[2])
end
return count
"""
