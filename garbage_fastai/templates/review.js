
const cards = [...document.querySelectorAll('.card')], key = document.body.dataset.key
let made = {}
try { made = JSON.parse(localStorage.getItem(key)) || {} } catch (e) {}
function count() { document.getElementById('count').textContent = `${Object.keys(made).length} of ${cards.length} decided` }
function cell(s) { return /[",\r\n]/.test(s) ? '"' + s.replace(/"/g, '""') + '"' : s }
for (const c of cards) {
  const path = JSON.parse(c.dataset.path), radios = [...c.querySelectorAll('input')], select = c.querySelector('select')
  if (made[path]) {
    for (const r of radios) r.checked = r.value == made[path][0]
    if (made[path][1]) select.value = made[path][1]
  }
  function decide() {
    const r = radios.find(r => r.checked)
    if (!r) return
    made[path] = [r.value, r.value == 'relabel' ? select.value : '']
    try { localStorage.setItem(key, JSON.stringify(made)) } catch (e) {}
    count()
  }
  for (const r of radios) r.addEventListener('change', decide)
  select.addEventListener('change', () => { for (const r of radios) r.checked = r.value == 'relabel'; decide() })
}
document.getElementById('save').addEventListener('click', () => {
  const rows = cards.map(c => JSON.parse(c.dataset.path)).filter(p => made[p]).map(p => [p, ...made[p]].map(cell).join(','))
  const a = document.createElement('a')
  a.href = URL.createObjectURL(new Blob([['path,decision,label', ...rows, ''].join('\n')], {type: 'text/csv'}))
  a.download = 'decisions.csv'
  a.click()
})
count()
