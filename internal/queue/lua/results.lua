-- Takes in what came of mails, judges by the last of them, and holds what has had
-- enough: one call, so that the whole fleet sees one decision. A window keeps the
-- last results of what may be held, a letter each: a accepted, h hard bounce, b blocked,
-- B blocked where nothing narrower can be held, u unknown, o anything else.
-- KEYS 1 held 2.. a window each: hash of r (letters), t (ms of the last B's),
--      xh, xb, xu (examples, a line each); lt is late.lua's
-- ARGV 1 limits as JSON: keep (letters), count, within (ms), few, of (of B's), most (ms),
--        and by letter h, b, u of each kind: share, of, least
--      2 windows as JSON: field, kind, letters, late (by letter: how many have been told
--        of afterwards, of total), examples (by letter), hold (state and lift), period
--        (ms after which it lifts itself, 0 = never)
-- Returns {field, hold as JSON, ...} of what was held by this call.
local limits, windows = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local names = {h = 'hard bounces', b = 'blocks', u = 'unknown outcomes'}

local function count(letters, kind)
  local _, n = string.gsub(letters, kind == 'b' and '[bB]' or kind, '')
  return n
end

-- over says by how much a share is too large. Fewer results than 'least' count as so
-- many: the first few replies stop nothing.
local function over(limit, kind, bad, results, of_what)
  if not limit or bad <= limit.share * math.max(results, limit.least) then return nil end
  return string.format('%d %s in %d %s; the limit is %g%%, of at least %d', bad, names[kind], results, of_what,
    limit.share * 100, limit.least)
end

-- burst judges blocks that nothing narrower than this window can be held for.
local function burst(letters, times)
  if limits.few > 0 and count(string.sub(letters, -limits.of), 'B') >= limits.few then
    return string.format('%d blocks in the last %d results; the limit is %d of %d', limits.few, math.min(#letters, limits.of),
      limits.few, limits.of)
  end
  if limits.count > 0 and #times >= limits.count and now - tonumber(times[#times - limits.count + 1]) <= limits.within then
    return string.format('%d blocks in %d minutes', limits.count, math.ceil(limits.within / 60000))
  end
end

local function split(text, pattern)
  local out = {}
  for part in string.gmatch(text or '', pattern) do out[#out + 1] = part end
  return out
end

-- add takes letters into a window up to the first bad one that is too much, and
-- returns why, and its letter.
local function add(w, letters, times)
  local by = limits[w.kind]
  local pos = 1
  while pos <= #w.letters do
    local bad = string.find(w.letters, '[hbBu]', pos)
    letters = string.sub(letters .. string.sub(w.letters, pos, bad or #w.letters), -limits.keep)
    if not bad then break end
    pos = bad + 1
    local letter = string.sub(w.letters, bad, bad)
    local why
    if letter == 'B' then
      times[#times + 1] = string.format('%.0f', now)
      why = burst(letters, times)
      letter = 'b'
    end
    local limit = by[letter]
    if limit and not why then
      local last = string.sub(letters, -limit.of)
      why = over(limit, letter, count(last, letter), #last, 'results')
    end
    if why then return letters, why, letter end
  end
  for letter, n in pairs(w.late or {}) do
    local why = over(by[letter], letter, n, w.total, 'accepted mails')
    if why then return letters, why, letter end
  end
  return letters
end

local out = {}
for i, w in ipairs(windows) do
  local key = KEYS[i + 1]
  if not stands(redis.call('HGET', KEYS[1], w.field)) then
    local kept, flat = {}, redis.call('HGETALL', key)
    for j = 1, #flat, 2 do kept[flat[j]] = flat[j + 1] end
    for letter, texts in pairs(w.examples or {}) do
      local all = split(kept['x' .. letter], '[^\n]+')
      for _, text in ipairs(texts) do all[#all + 1] = text end
      kept['x' .. letter] = table.concat(all, '\n', math.max(1, #all - 2))
    end
    local times = split(kept.t, '%d+')
    local letters, why, letter = add(w, kept.r or '', times)
    if why then
      redis.call('DEL', key)
      w.hold.why = why
      local examples = split(kept['x' .. letter], '[^\n]+')
      if #examples > 0 then w.hold.examples = examples end
      local _, stored = begin(KEYS[1], w.field, w.hold, w.period, limits.most)
      out[#out + 1] = w.field
      out[#out + 1] = stored
    else
      kept.r = letters
      kept.t = table.concat(times, ' ', math.max(1, #times - limits.count + 1))
      for field, value in pairs(kept) do redis.call('HSET', key, field, value) end
      redis.call('EXPIRE', key, 86400)
    end
  end
end
return out
