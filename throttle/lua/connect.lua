-- Counts one attempt to connect and takes one open connection, or neither.
--
-- ARGV: LEASE STREAM LAPSE; the LOGIN that the stream uses, the fingerprint of its
--       credentials, the LAPSE of the dial, how many dials of the login may be under
--       way (0: any number, and no breaker), and COUNT, STREAM N each: connections
--       kept for streams of the login; counters;
--       LOSS, for how long the data may be behind what was granted; GRACE, in
--       which none is granted then; COUNT, then
--       COUNTER N FULL GONE each: what may have been granted in LOSS, all there is,
--       and what to count if nothing is known any more; BORN as the asker was told
--       (0: never); windows; open connections (see lib.lua)
-- Returns: 1 or 0, 0, 0, time after which to ask again (0: when one is given
--       back), now, BORN, 1 if these credentials were refused

local lease, stream, lapse = take(), take(), num()
local login, credentials, dialing, most = take(), take(), num(), num()
local kept = {}
for _ = 1, num() do
  local s = take()
  kept[s] = num()
end
local cs = counters()
local loss, grace = num(), num()
local run, _, from = whoIsIt(grace)
local lost = math.min(now, last + loss)
local gone = {}
for _ = 1, num() do
  local c, most, full = cs[num()], num(), num()
  gone[c] = num()
  if run ~= '' and redis.call('HGET', state, 'r:' .. c.name) ~= run then
    redis.call('HSET', state, 'r:' .. c.name, run)
    most = math.min(most, full - c.used)
    if dialled > 0 and most > 0 then
      count(c, most, lost)
      c.frees = math.max(c.frees, 1)
    end
  end
end
local born, missing = bornAt(num())
if missing then
  for c, all in pairs(gone) do
    if all > c.used then
      count(c, all - c.used)
      c.frees = math.max(c.frees, 1)
    end
  end
  if run ~= '' then
    from = now + grace
    redis.call('HSET', state, 'r', run .. ' ' .. int(dialled) .. ' ' .. int(from))
  end
end
local n, retry = room(cs, 1)
if from > now then
  n, retry = 0, math.max(retry, from - now)
end
local mayOpen = openings(true)
local refused = 0
if most > 0 then
  logsInAs(stream, login)
  local ok, wait = gate(stream, most, kept)
  if not ok then
    n, retry = 0, math.max(retry, wait)
  end
  refused = redis.call('HEXISTS', state, 'l:' .. login .. ':' .. credentials)
  if refused == 1 then -- until Reset, or other credentials
    n = 0
  end
end
if n == 1 and mayOpen(stream) then
  redis.call('ZADD', open, int(now + lapse), lease)
  change('dialled', now)
  for _, c in ipairs(cs) do
    if c.charge then
      count(c, 1)
    end
  end
  if most > 0 then
    local list = dials(stream, '')
    list[#list + 1] = {lease = lease, start = now, lapse = now + dialing}
    keep(stream, list)
  end
else
  n = 0
end
save()
return {n, 0, 0, retry, now, born, refused}
